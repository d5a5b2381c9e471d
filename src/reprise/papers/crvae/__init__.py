"""CR-VAE (Sinha and Dieng, NeurIPS 2021): the posteriors of an image and of its transformation must agree."""
