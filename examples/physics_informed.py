"""Solve a differential equation with a network that knows nothing but the equation.

Heat in a rod: u(x, t) obeys u_t = 0.1 u_xx on 0 < x < 1, is 0 at both ends, and begins as
sin(pi x) + 0.5 sin(3 pi x). The network is a guess of u. Its derivatives with respect to its inputs, the
second one too, come from dl.grad; what is trained away is how far they are from obeying the equation, at
points drawn anew in each step (Raissi, Perdikaris & Karniadakis, 2019). No solution is shown to it; the exact
one, which is known here, is for comparison. Run it with --help to see what can be changed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minidl as dl

CONDUCTIVITY = 0.1


def beginning(x):
    """Return u at time 0."""
    return np.sin(np.pi * x) + 0.5 * np.sin(3 * np.pi * x)


def exact(x, t):
    """Return the solution: each sine fades by itself, the faster the more waves it has."""
    slow, fast = (np.exp(-CONDUCTIVITY * (k * np.pi) ** 2 * t) for k in (1, 3))
    return slow * np.sin(np.pi * x) + 0.5 * fast * np.sin(3 * np.pi * x)


class Guess(dl.Layer):
    """u(x, t): two columns of numbers to one. It is 0 at both ends by the way it is made."""

    def __init__(self, hidden, seed):
        generator = dl.Generator(seed)
        self.network = dl.Network(
            [
                dl.Dense(2, hidden, seed=generator),
                dl.Tanh(),
                dl.Dense(hidden, hidden, seed=generator),
                dl.Tanh(),
                dl.Dense(hidden, hidden, seed=generator),
                dl.Tanh(),
                dl.Dense(hidden, 1, seed=generator),
            ]
        )

    def forward(self, x, t):
        return 4 * x * (1 - x) * self.network(dl.concatenate([2 * x - 1, 2 * t - 1], axis=-1))


def equation(u, x, t):
    """Return u_t - 0.1 u_xx at each point: 0 where u obeys the equation."""
    x.requires_grad = t.requires_grad = True
    value = u(x, t)
    u_x, u_t = dl.grad(value.sum(), [x, t], create_graph=True)  # points do not depend on each other: a sum
    (u_xx,) = dl.grad(u_x.sum(), [x], create_graph=True)  # of them has the derivatives of each
    return u_t - CONDUCTIVITY * u_xx


def train(u, options):
    """Train the network; return the loss of each step."""
    optimizer = dl.Adam(u.parameters(), dl.schedules.Cosine(options.learning_rate, options.steps))
    random = np.random.default_rng(options.seed)

    def step(x, t, x_0, u_0):
        inside = (equation(u, x, t) ** 2).mean()
        start = ((u(x_0, x_0 * 0) - u_0) ** 2).mean()
        loss = inside + 10 * start
        loss.backward()
        optimizer.step()
        return loss

    step = step if options.eager else dl.compile(step)
    losses = []
    with tqdm(range(options.steps), unit="step", disable=None) as bar:
        for i in bar:
            x, t = random.uniform(size=(2, options.points, 1)).astype("float32")
            x_0 = random.uniform(size=(options.points // 4, 1)).astype("float32")
            arguments = (x, t, x_0, beginning(x_0).astype("float32"))
            losses.append(step(*(dl.tensor(a, device=options.device) for a in arguments)))
            if i % 100 == 0:
                bar.set_postfix(loss=f"{losses[-1].item():.2e}", refresh=False)
    return [loss.item() for loss in losses]


def plot_solution(x, t, guessed, right, losses, path):
    """Draw the network's solution, how far it is from the exact one, some moments, and the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    (solution, error), (moments, course) = figure.subplots(2, 2)
    for axes, values, name in (
        (solution, guessed, "the network's solution"),
        (error, guessed - right, "its error"),
    ):
        limit = abs(values).max()
        shades = axes.pcolormesh(t, x, values, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True)
        axes.set(title=name, xlabel="time t", ylabel="place x")
        figure.colorbar(shades, ax=axes)
    for i in np.linspace(0, t.shape[1] - 1, 5).astype(int):
        line = moments.plot(x[:, i], guessed[:, i], label=f"t = {t[0, i]:.2f}")[0]
        moments.plot(x[::5, i], right[::5, i], "o", markersize=3, color=line.get_color())
    moments.set(title="five moments; dots are the exact solution", xlabel="place x", ylabel="u")
    moments.set_ylim(top=1.6)
    moments.legend(fontsize=8, ncols=3, loc="upper center")
    course.semilogy(losses, linewidth=0.6)
    course.set(title="how far the equation and the beginning are violated", xlabel="step")
    figure.savefig(path, dpi=110)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--points", type=int, default=256, help="where the equation is looked at, in a step")
    parser.add_argument("--hidden", type=int, default=32, help="units of each hidden layer")
    parser.add_argument("--learning-rate", type=float, default=5e-3, help="at first; it falls to 0")
    parser.add_argument("--device", default="cpu", help="auto, cpu, gpu or gpu:N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the training step")
    parser.add_argument("--out", type=Path, default=Path("runs/physics_informed"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    if min(options.steps, options.hidden) < 1 or options.points < 4:
        raise ValueError("--steps and --hidden must be at least 1, --points at least 4")
    options.device = dl.devices.resolve(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    u = Guess(options.hidden, options.seed).to(options.device)
    losses = train(u, options)

    x, t = np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101), indexing="ij")
    with dl.no_grad():
        columns = (dl.tensor(a.reshape(-1, 1), "float32", device=options.device) for a in (x, t))
        guessed = u(*columns).numpy().reshape(x.shape)
    right = exact(x, t)
    u.save(options.out / "weights.safetensors")
    plot_solution(x, t, guessed, right, losses, options.out / "solution.png")
    error = np.sqrt(((guessed - right) ** 2).mean() / (right**2).mean())
    print(f"pictures and weights are in {options.out}")
    print(f"relative error {error:.2e}, at most {abs(guessed - right).max():.1e} anywhere")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
