"""The dashboard: page config, the navigation table and what is served beside the pages. Start it with `streamlit run app.py`.

This file goes by three names, so everything happens under a guard, and Streamlit itself is imported only there:
Streamlit imports it once as `app`, to serve the application it finds in it, and runs it as `__main__` for each page;
the prediction process imports it as `__mp_main__` (see `cifar_tl/ui/predictor.py`).
"""


def main() -> None:
    import streamlit as st

    from cifar_tl.paths import PROJECT_ROOT
    from cifar_tl.ui import cached

    pages = PROJECT_ROOT / "cifar_tl" / "ui" / "pages"
    # A picture of our own: for a Material icon the browser would ask fonts.gstatic.com.
    st.set_page_config(page_title="Transfer learning", page_icon=str(pages.parent / "icon.png"), layout="wide")
    cached.static_files()
    page = st.navigation(
        [
            st.Page(pages / "train.py", title="Train", icon=":material/model_training:", url_path="train", default=True),
            st.Page(pages / "runs.py", title="Runs", icon=":material/list_alt:", url_path="runs"),
            st.Page(pages / "compare.py", title="Compare", icon=":material/compare_arrows:", url_path="compare"),
            st.Page(pages / "explore.py", title="Explore", icon=":material/query_stats:", url_path="explore"),
            st.Page(pages / "predict.py", title="Predict", icon=":material/image_search:", url_path="predict"),
        ],
        position="top",
    )
    page.run()


if __name__ == "__main__":
    main()
elif __name__ == "app":
    import os

    from streamlit import App

    from cifar_tl.http.serving import routes

    app = App(__file__, routes=routes(os.environ))
