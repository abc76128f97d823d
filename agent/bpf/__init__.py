"""BPF objects, their maps and programs, by libbpf: loaded, attached, read."""
