"""What the signal campaign trains: a program that says what it does, and checks itself after each Ctrl-C.

Its arguments are the kind of step ("plain", "numpy" or "c") and a file that it writes again and again.
It prints "ready", and "interrupted" for each KeyboardInterrupt; "wrong: ..." is a fault.
"""

import os
import signal
import sys
from pathlib import Path

import numpy

import minidl as dl
from minidl.files import replacing
from minidl.program.cpu.blas import best_blas

LENGTH = 20_000


def make_step(kind):
    rng = numpy.random.default_rng(0)
    w = dl.Parameter(rng.normal(0, 0.1, (64, 64)).astype("float32"))
    optimizer = dl.Adam([w], 1e-3)

    def step(x):
        loss = dl.mean((dl.tanh(dl.tanh(x @ w) @ w.T) - x) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step if kind == "plain" else dl.compile(step, kernels=kind, threads=2)


def main(kind, path):
    x = numpy.random.default_rng(1).normal(size=(256, 64)).astype("float32")
    blas = best_blas()
    threads = blas.get_threads() if blas else 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    step = make_step(kind)
    step(x)
    pure = dl.compile(lambda x: dl.sum(dl.tanh(x @ x.T)), kernels="numpy" if kind == "plain" else kind)
    expected = float(pure(x))

    def train():
        count = 0
        while True:
            step(x)
            pure(x)
            count = (count + 1) % 250
            with replacing(path) as temporary:
                temporary.write_bytes(bytes([count]) * LENGTH)

    def check():
        """Whatever it broke into: nobody is at work, and the next call is as good as ever."""
        now = blas.get_threads() if blas else 1
        if now != threads:
            say(f"wrong: BLAS uses {now} threads instead of {threads}")
        if float(pure(x)) != expected:
            say("wrong: a step computes something else after an interrupt")

    def train_until_interrupted():
        try:
            train()
        except KeyboardInterrupt:
            check()

    def train_again_and_again():
        while True:
            try:
                train_until_interrupted()
                say("interrupted")
            except KeyboardInterrupt:  # the second one, while the first was looked after
                say("interrupted")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # who reads "ready" may send one at once
    greetings = ["ready"]
    while True:
        try:
            while greetings:
                say(greetings.pop())
            train_again_and_again()
        except KeyboardInterrupt:  # the second one, between two rounds
            say("interrupted")


def say(text):
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
