"""Three services over one transport: datagrams, a byte stream, and media in step."""
