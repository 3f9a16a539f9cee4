"""Log records: packet decoding, packet key, record schema."""
