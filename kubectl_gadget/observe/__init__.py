"""`observe`: the flows that agents keep, as lines, as Hubble's flows, or as any other events."""
