"""A search for a learning rate in PyTorch, by Ray Tune or by Optuna in two threads of one process.

Usage: python -m benchmarks.peers.search_torch DATA.npz TRIALS EPOCHS LOWEST HIGHEST tune|optuna
Prints one JSON line: seconds of the search, start-up not counted.
"""

import json
import sys
import time


def train(path, epochs, learning_rate):
    """Validation accuracy of one trial."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from trainers.torch.models import build_model

    torch.set_num_threads(1)
    data = np.load(path)
    pixels, labels = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"])
    images = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    held_out = len(labels) // 10
    model = build_model("tutorial_cnn", tuple(pixels.shape[1:]), 10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    for _ in range(epochs):
        model.train()
        for batch in (held_out + torch.randperm(len(labels) - held_out)).split(128):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            accuracy = (model(images[:held_out]).argmax(1) == labels[:held_out]).float().mean().item()
    return accuracy


def search_with_optuna(path, trials, epochs, lowest, highest):
    """Seconds of two threads' trials, after one that imports what all need."""
    import optuna

    train(path, epochs, lowest)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

    def objective(trial):
        return train(path, epochs, trial.suggest_float("rate", lowest, highest, log=True))

    start = time.perf_counter()
    study.optimize(objective, trials, n_jobs=2)
    return time.perf_counter() - start


def search_with_tune(path, trials, epochs, lowest, highest):
    """Seconds of the tuner on a cluster that runs."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config):
        tune.report({"accuracy": train(path, epochs, config["rate"])})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"rate": tune.loguniform(lowest, highest)},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=0),
            num_samples=trials,
            max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(verbose=0),
    )
    start = time.perf_counter()
    tuner.fit()
    seconds = time.perf_counter() - start
    ray.shutdown()
    return seconds


if __name__ == "__main__":
    search = search_with_optuna if sys.argv[6] == "optuna" else search_with_tune
    seconds = search(sys.argv[1], *map(int, sys.argv[2:4]), *map(float, sys.argv[4:6]))
    print(json.dumps({"seconds": seconds}), flush=True)
