"""Sans-I/O protocol codecs, server and client role."""
