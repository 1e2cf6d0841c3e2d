"""The dashboard: page config and the navigation table, nothing else. Start it with `streamlit run app.py`.

The prediction process imports this file as `__mp_main__` (see `cifar_tl/ui/predictor.py`); Streamlit runs it as
`__main__`. So everything happens under the guard, and Streamlit itself is imported only there.
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
            st.Page(pages / "sweep.py", title="Sweep", icon=":material/tune:", url_path="sweep"),
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
