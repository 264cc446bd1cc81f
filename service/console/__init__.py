"""The console: the page that a browser shows at /, its files, and the HTML of an adapter's card."""
