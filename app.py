"""The dashboard: page config and the navigation table, nothing else. Start it with `streamlit run app.py`.

The prediction process imports this file as `__mp_main__` (see `cifar_tl/ui/predictor.py`); Streamlit runs it as
`__main__`. So everything happens under the guard, and Streamlit itself is imported only there.
"""


def main() -> None:
    import streamlit as st

    st.set_page_config(page_title="Transfer learning", page_icon=":material/image_search:", layout="wide")
    pages = "cifar_tl/ui/pages"
    page = st.navigation(
        [
            st.Page(f"{pages}/train.py", title="Train", icon=":material/model_training:", url_path="train", default=True),
            st.Page(f"{pages}/runs.py", title="Runs", icon=":material/list_alt:", url_path="runs"),
            st.Page(f"{pages}/explore.py", title="Explore", icon=":material/query_stats:", url_path="explore"),
            st.Page(f"{pages}/predict.py", title="Predict", icon=":material/image_search:", url_path="predict"),
        ],
        position="top",
    )
    page.run()


if __name__ == "__main__":
    main()
