"""Video, sound and faces: everything that reads or writes files from outside."""
