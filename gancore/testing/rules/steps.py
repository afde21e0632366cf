"""Rules about a step: what the hooks read, return, change, and ask of the device."""

from __future__ import annotations

import torch
from torch import nn

from gancore.augment import Augment
from gancore.testing.bench import Bench
from gancore.testing.subject import Breach


def declared_is_read(bench: Bench) -> str | None:
    """What the method declares is read in some phase, nothing else is; every declared term has a value where
    it is due, and a gradient."""
    watch = bench.watched  # undeclared reads and missing terms raise inside
    if watch.backdoors:
        attribute, where = sorted(watch.backdoors.items())[0]
        raise Breach(
            f"it reads step.{attribute} in its {where}",
            expected="step.d and step.images, which know what was declared",
            fix="declare what is read with plan.term(reads=…) or plan.watch(reads=…)",
        )
    unread = watch.unread()
    if unread:
        network, view, output = unread[0]
        what = f"the {view} side '{output}'" if view.endswith(" of") else f"'{output}' of view '{view}'"
        more = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
        raise Breach(
            f"it declares for phases of {network.upper()} that it reads {what}{more}, and never reads it",
            expected="declarations that cost D no row for nothing",
            fix="drop it from reads, scores, margins or penalty of the term or watch",
        )
    dead = watch.dead()
    if dead:
        term, network = dead[0]
        raise Breach(
            f"the term '{term}' of {network.upper()} never has a gradient other than zero",
            expected="a term that moves a parameter which trains in its phase",
            fix=f"check what is detached in it, and whether it belongs to the loss of {network.upper()}",
        )
    return None


def gradients_stay(bench: Bench) -> str | None:
    """A phase leaves gradients in the parameters of its own network alone; modules of the method train with the
    network that they name; the method's terms reach the network."""
    watch = bench.watched
    with bench.session() as session:
        trainer = session.trainer
        modules = {"g": trainer.generator, "d": trainer.discriminator}
        everything = {
            f"{network}.{name}": p for network, m in modules.items() for name, p in m.named_parameters()
        }
        for key, module in trainer.modules.modules.items():
            everything |= {f"methods.{key}.{name}": p for name, p in module.named_parameters()}
        _check_loose(bench, session.manager.methods[bench.name], {id(p) for p in everything.values()})
        before = {name: p.detach().clone() for name, p in everything.items()}
        trainer.set_progress()
        for phase in ("d", "d_reg", "g", "g_reg"):
            network = phase[0]
            for parameter in everything.values():
                parameter.grad = None
            trainer.update(phase, 0)
            own = {id(p) for p in trainer.trained[network].values()}
            for name, parameter in everything.items():
                if parameter.grad is not None and id(parameter) not in own:
                    raise Breach(
                        f"a phase of {network.upper()} leaves a gradient in '{name}'",
                        expected=f"gradients in what trains with {network.upper()} alone",
                        fix="do not call backward, and leave requires_grad of networks and modules to gancore",
                    )
        for _ in range(2):
            trainer.train_step()
        for key, chosen in trainer.modules.trained_by.items():
            if key.split(".")[0] == bench.name and chosen is not None:
                _check_trains(session, key, chosen, before)
    if watch.alive and not watch.reaches:
        raise Breach(
            "no term has a gradient on the parameters of D or G themselves",
            expected="at least one term that trains the network it is declared for",
            fix="do not detach all that the terms read",
        )
    return None


def _check_loose(bench: Bench, method: object, known: set[int]) -> None:
    """Parameters that the method keeps for itself are neither trained nor saved."""
    for attribute, value in vars(method).items():
        loose = list(value.parameters()) if isinstance(value, nn.Module) else []
        loose += [value] if isinstance(value, nn.Parameter) else []
        if any(parameter.requires_grad and id(parameter) not in known for parameter in loose):
            raise Breach(
                f"its attribute '{attribute}' holds parameters that no optimiser trains and no checkpoint holds",
                expected="modules handed to the run",
                fix="self.NAME = run.add_module('NAME', module, trained_by='d')",
            )


def _check_trains(session, key: str, network: str, before: dict[str, torch.Tensor]) -> None:  # type: ignore[no-untyped-def]
    module = session.trainer.modules.modules[key]
    names = [f"methods.{key}.{n}" for n, p in module.named_parameters() if p.requires_grad]
    now = {f"methods.{key}.{name}": p for name, p in module.named_parameters()}
    if names and all(torch.equal(before[name], now[name]) for name in names):
        raise Breach(
            f"the module '{key}' names {network.upper()} as what it trains with, and no step changes it",
            expected=f"parameters that a term of {network.upper()} reaches",
            fix="use it in a term of that network, or name the other one in run.add_module(trained_by=…)",
        )


def no_host_sync(bench: Bench) -> str | None:
    """In a step no hook makes the host wait for the device: no value is read, no shape and no branch depends on
    values."""
    waits = bench.scrutinised.waits
    if waits:
        what, where = next(iter(waits.items()))
        more = f" (besides: {', '.join(list(waits)[1:])})" if len(waits) > 1 else ""
        raise Breach(
            f"{what} in its {where}{more}",
            expected="tensors that stay on the device, of shapes that do not depend on their values",
            fix="torch.where or a product with a mask for a branch or a selection; 0-d tensors for numbers; "
            "what is random on the host comes from step.rng().numpy",
        )
    return None


def pure_functions_stay(bench: Bench) -> str | None:
    """No hook, view or link changes in place what others read; a link does the same with the same draws; draws
    have the same shapes in every step."""
    watch = bench.watched  # the probe refuses work in place in views and links
    if watch.changed:
        what, where = sorted(watch.changed.items())[0]
        raise Breach(
            f"it changes {what} in place, in its {where}",
            expected="new tensors; others read the same ones",
            fix="no call that ends in an underscore, no assignment to a slice, on what was not made by itself",
        )
    for (where, phase, _), shapes in sorted(watch.shapes.items()):
        if len(shapes) > 1:
            seen = ", ".join(f"{shape} in step {step}" for shape, step in shapes.items())
            raise Breach(
                f"what it draws into {where} in phase '{phase}' has the shapes {seen}",
                expected="one shape in all steps, so that a step can be captured",
                fix="draw for every row, and choose with a mask",
            )
    if watch.unsized:
        name, shape = sorted(watch.unsized.items())[0]
        raise Breach(
            f"the draw '{name}' of its link has shape {shape}",
            expected="a tensor with one row a sample, (B, …), which is repeated for views of several copies",
            fix="give shape[0] rows to everything that draw returns",
        )
    if bench.name in watch.links:
        with bench.session() as session:
            _check_link(bench, session, dict(session.trainer.chain.links)[bench.name])
    return None


def _check_link(bench: Bench, session, link: Augment) -> None:  # type: ignore[no-untyped-def]
    program = session.plan.full_program("d")
    step = session.trainer.new_step(program, 0)
    session.trainer.draw(step)
    side = link.sides[0]
    draw = step.augmentation[side][bench.name]
    images = torch.rand(step.batch, *session.dataset.shape) * 2 - 1
    copies = {name: value.clone() for name, value in draw.items()}
    with torch.no_grad():
        first, second = link.transform(images, draw), link.transform(images, draw)
    changed = [name for name, value in draw.items() if not torch.equal(value, copies[name])]
    if changed:
        raise Breach(
            f"its transform changes the draw '{changed[0]}'",
            expected="a pure function of images and draw",
            fix="work on a copy",
        )
    if not torch.equal(first, second):
        raise Breach(
            "its transform gives two results for the same images and draw",
            expected="a pure function of images and draw; a penalty and a micro-batch call it again",
            fix="draw everything random in draw()",
        )
