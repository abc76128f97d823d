"""The client of the API server: kubeconfig, credentials, requests, port-forwards. It knows no command and no stream."""
