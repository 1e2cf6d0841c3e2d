"""Charts as plain data: pure functions from facts to Plotly traces and layouts. No Streamlit calls here."""
