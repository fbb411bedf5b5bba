"""Discord. The only package that imports the library, and only once a token is there (`channel.py`)."""
