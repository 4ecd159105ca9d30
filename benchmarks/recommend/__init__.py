"""How fast lists are answered, beside one exact scan of the items and faiss IVF."""
