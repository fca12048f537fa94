"""Buttons that open a chapter in Colab, on Binder or on its host need the repository's address; without one there are none.

The address is `repository.url` in _config.yml; while it is empty the theme would stop with an error.
"""


def ask_for_address(app, config) -> None:
    """Launch buttons and a link to the repository where its address is known, and neither where it is not."""
    theme = config.html_theme_options
    theme["use_repository_button"] = bool(theme.get("repository_url"))
    if not theme["use_repository_button"]:
        theme.pop("launch_buttons", None)


def setup(app) -> dict:
    app.connect("config-inited", ask_for_address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
