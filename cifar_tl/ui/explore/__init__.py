"""The views of the Explore page, one module each. A view is a fragment: a click reruns the view and not the page."""
