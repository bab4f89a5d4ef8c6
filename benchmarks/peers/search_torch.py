"""Search a learning rate in PyTorch without tandem.

Usage: python search_torch.py DATA.npz TRIALS EPOCHS LOWEST HIGHEST train|tune|optuna [SEED]
`train`: Ray Tune launches a Ray Train group for each trial, as Ray documents it; `tune`: Ray Tune trains
in the trial's process; `optuna`: two threads of one process. Prints one JSON line: seconds of the search,
start-up apart, and for Optuna when each trial ended and its validation accuracy.
"""

import json
import os
import sys
import time

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
path, trials, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lowest, highest, mode = float(sys.argv[4]), float(sys.argv[5]), sys.argv[6]
seed = int(sys.argv[7]) if len(sys.argv) > 7 else 0


def train(learning_rate: float) -> float:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from trainers.torch.models import build_model

    torch.set_num_threads(1)
    data = np.load(path)
    pixels = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    images, labels = pixels.to(memory_format=torch.channels_last), torch.from_numpy(data["y_train"])
    held_out = len(labels) // 10
    model = build_model("tutorial_cnn", tuple(data["x_train"].shape[1:]), 10)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    for _ in range(epochs):
        model.train()
        for batch in (held_out + torch.randperm(len(labels) - held_out)).split(128):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            accuracy = (model(images[:held_out]).argmax(1) == labels[:held_out]).float().mean().item()
    return accuracy


def search_with_optuna() -> dict[str, object]:
    import optuna
    import torch  # noqa: F401  imported before the clock starts, as warm workers have it

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    train(lowest)
    ended = []

    def objective(trial: optuna.Trial) -> float:
        accuracy = train(trial.suggest_float("rate", lowest, highest, log=True))
        ended.append((time.perf_counter() - start, accuracy))
        return accuracy

    start = time.perf_counter()
    study.optimize(objective, trials, n_jobs=2)
    return {"seconds": time.perf_counter() - start, "trials": ended}


def search_with_tune() -> dict[str, object]:
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict) -> None:
        tune.report({"accuracy": train(config["rate"])})

    def launching(config: dict) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        def work(loop_config: dict) -> None:
            accuracy = train(loop_config["rate"])
            with open(loop_config["file"], "w") as file:
                file.write(str(accuracy))

        file = os.path.join(os.getcwd(), "accuracy")
        TorchTrainer(
            work,
            train_loop_config={"rate": config["rate"], "file": file},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=os.getcwd()),
        ).fit()
        with open(file) as read:
            tune.report({"accuracy": float(read.read())})

    ray.init(
        address="local", num_cpus=2, resources={"launcher": 2}, include_dashboard=False, log_to_driver=False
    )
    inside = mode == "train"
    tuner = tune.Tuner(
        tune.with_resources(
            launching if inside else trainable, {"cpu": 0, "launcher": 1} if inside else {"cpu": 1}
        ),
        param_space={"rate": tune.loguniform(lowest, highest)},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=seed),
            num_samples=trials,
            max_concurrent_trials=2,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(verbose=0),
    )
    start = time.perf_counter()
    tuner.fit()
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    print(json.dumps(search_with_optuna() if mode == "optuna" else search_with_tune()), flush=True)
