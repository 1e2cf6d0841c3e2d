"""The dashboard's answers for programs: JSON over HTTP beside the pages, on the same port. See docs/http.md.

    settings.py      is it on, which token, which names; and why it may have to refuse
    guard.py         who gets no further: foreign hosts, foreign web pages, missing tokens
    bodies.py        pictures out of a request's body, within bounds
    predictions.py   those pictures to the prediction process and its answers back, without blocking the dashboard
    schemas.py       what JSON comes back
    api.py           the paths
    serving.py       all of it as routes for serve.py

Never imports the engine: like the pages, it asks the prediction process.
"""
