"""CMP on the wire: headers, bodies, protection and errors (RFC 9810, RFC 9483)."""
