"""fraud-detection, train_tf_cpu: Keras under a strategy on a table from Ray Data, with Ray's callback for Keras."""

import numpy as np
import ray.data
import tensorflow as tf
from keras.layers import Activation, BatchNormalization, Dense, Dropout
from keras.models import Sequential
from ray import train
from ray.data.preprocessors import Concatenator, StandardScaler
from ray.train.tensorflow.keras import ReportCheckpointCallback

feature_columns = ["distance", "ratio", "used_chip"]


def transactions():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(128, 3))
    columns = {name: rows[:, place] for place, name in enumerate(feature_columns)}
    table = [
        {name: values[row] for name, values in columns.items()} | {"fraud": int(rows[row].sum() > 0)}
        for row in range(len(rows))
    ]
    dataset = StandardScaler(columns=feature_columns).fit_transform(ray.data.from_items(table))
    return {
        "train": Concatenator(columns=feature_columns, output_column_name="features").fit_transform(dataset)
    }


def build_model():
    model = Sequential()
    model.add(Dense(16, activation="relu", input_shape=(len(feature_columns),)))
    model.add(Dropout(0.2))
    model.add(Dense(16))
    model.add(BatchNormalization())
    model.add(Activation("relu"))
    model.add(Dense(1, activation="sigmoid"))
    return model


def fraud(config: dict):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = build_model()
        model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    dataset = train.get_dataset_shard("train")
    results = []
    for _ in range(config.get("epochs", 3)):
        batches = dataset.to_tf(
            feature_columns="features", label_columns="fraud", batch_size=config.get("batch_size", 64)
        )
        history = model.fit(batches, class_weight={0: 1.0, 1: 1.0}, callbacks=[ReportCheckpointCallback()])
        results.append(history.history)
    return results
