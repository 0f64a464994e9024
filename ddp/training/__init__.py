"""Distributed training on numpy: data, pipeline and tensor parallel, asynchronous, elastic."""
