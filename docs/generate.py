"""It is tools/generate.py now; this goes soon."""

from tools.generate import write

if __name__ == "__main__":
    write()
