"""Load the guard that runs the code blocks of the pages, and what its own tests need."""

pytest_plugins = ["tools.codeblocks", "pytester"]

# Labs are run by the site's build; importing one here would run it during collection.
collect_ignore_glob = ["docs/labs/*", "site/*", "build/*"]
