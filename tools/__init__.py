"""What builds and checks the site: plain scripts, called by pytest, MkDocs hooks and `make`."""
