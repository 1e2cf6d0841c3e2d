"""The parts of the Predict page, in the order in which it shows them: `choosing` who is asked and how, `sources` of pictures, `gallery`
of answers (`answer_grid`, judged by `verdicts`), `detail` of one of them (`photo` with its heat map, `nearest` training images).

`ui.prediction_batch` brings pictures to the prediction process and answers back; nothing here waits for it.
"""
