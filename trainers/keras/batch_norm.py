"""Batch normalisation by TensorFlow's fused kernels, over the global batch. Twin of `trainers/torch/batch_norm.py`."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf
from keras import layers


class BatchNorm(layers.BatchNormalization):
    """Keras' `BatchNormalization` for images [n, height, width, channels], trained with fewer passes over them."""

    def call(self, inputs, training=None, mask=None):
        """As Keras' own, without masks."""
        # On GPUs the kernel whose derivative is exchanged has no deterministic one.
        if not training or (self.synchronized and tf.config.list_physical_devices("GPU")):
            return super().call(inputs, training=training)
        x = tf.cast(inputs, tf.float32)
        normalize = _normalize_globally if self.synchronized else _normalize
        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        y, mean, variance = normalize(x, scale, offset, self.epsilon)
        for kept, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + value * (1 - self.momentum))
        return tf.cast(y, self.compute_dtype)


def synchronize(model: keras.Model) -> None:
    """Make every batch normalisation of a user's model see the global batch."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True


def make_portable(model: keras.Model) -> None:
    """Turn a model's layers into those that Keras has without tandem, on any of its backends."""
    for layer in model._flatten_layers():
        if type(layer) is BatchNorm:
            layer.__class__ = layers.BatchNormalization
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = False


def _normalize(x, scale, offset, epsilon):
    """Images normalised, and their mean and (biased) variance [channels]."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    count = _count(x)
    return y, mean, variance * (count - 1) / count  # the kernel gives the unbiased one


def _normalize_globally(x, scale, offset, epsilon):
    """As `_normalize`, over all workers' shares; what is summed over the images is exchanged in between.

    The derivative is that of Ioffe and Szegedy (2015), section 3.
    """

    @tf.custom_gradient
    def normalize(x, scale, offset):
        _, mean, variance = _normalize(x, scale, offset, epsilon)
        count = _count(x)
        *sums, total = _summed(mean * count, (variance + mean**2) * count, count[None])
        mean, squares = (value / total for value in sums)
        variance = squares - mean**2
        normalized = functools.partial(
            tf.raw_ops.FusedBatchNormV3, x=x, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        )
        y, *_ = normalized(scale=scale, offset=offset)

        def gradients(of_y, *_):
            direct, of_scale, of_offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=of_y,
                x=x,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
                is_training=False,
            )
            slope = -scale * tf.math.rsqrt(variance + epsilon) / total
            along_x, constant = (slope * value for value in _summed(of_scale, of_offset))
            # The kernel takes one pass over the images where arithmetic takes two, each slower.
            through_moments, *_ = normalized(scale=along_x, offset=constant)
            return direct + through_moments, of_scale, of_offset

        return (y, mean, variance), gradients

    return normalize(x, scale, offset)


def _count(x):
    """Values of a channel."""
    return tf.cast(tf.size(x) / tf.shape(x)[-1], tf.float32)


def _summed(*values):
    """Vectors summed over the workers, in one exchange."""
    sizes = [value.shape[0] for value in values]
    context = tf.distribute.get_replica_context()
    return tf.split(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(values, 0)), sizes)
