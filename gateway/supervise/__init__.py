"""One supervisor binds the sockets and reads the configuration once; N worker processes serve."""
