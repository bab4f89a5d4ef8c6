"""The Keras side: models, optimizers, engine. Twin of `trainers.torch`."""
