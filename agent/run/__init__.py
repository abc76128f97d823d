"""A run: a gadget at work. A source gives rows, steps decide what becomes of them, subscribers get the batches."""
