"""Streams: what is asked of agents, their replies as one stream in order, recordings, the session that shows all."""
