"""The way to an API server: which one, as whom, requests, and ports of pods. It knows no command and no stream."""
