"""`hubble serve`: the flows that agents keep, served as Hubble serves its own, for Hubble's clients."""
