"""The dashboard, and beside it its answers for programs where they are asked for: docs/http.md. `streamlit run serve.py` in place of app.py.

A file of its own, because Streamlit serves a file that holds an application in another way than a page: it opens no browser, and Ctrl-C is an
error to it. Whoever starts app.py keeps what they had.
"""

import os

from streamlit import App

from cifar_tl.http.serving import routes

app = App("app.py", routes=routes(os.environ))  # Streamlit looks for this line, without running the file
