"""The report's figures. Builders make charts of a comparison; `interactive` and `static` draw them."""
