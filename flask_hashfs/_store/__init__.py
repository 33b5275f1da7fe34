"""The store that a user holds, over one backend: it checks what is put."""
