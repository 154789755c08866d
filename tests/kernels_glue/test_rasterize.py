import math

import pytest
import torch
from lyra_pack.kernels_glue import KernelUnavailable, rasterize
from lyra_pack.kernels_glue.rasterizer import compositing
from lyra_pack.kernels_glue.rasterizer.projection import project

MODES = ("ut_eval3d", "ewa")
NAMES = ("means", "quats", "scales", "opacities", "colors")


def scene(count: int, seed: int, size: float = 0.15, dtype=torch.float64) -> dict:
    """Anisotropic splats before two turned, off-centre cameras whose focal lengths differ."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    viewmats = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    angle = 0.3
    viewmats[1, :3, :3] = torch.tensor([
        [math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)],
    ], dtype=torch.float64)  # fmt: skip
    viewmats[1, :3, 3] = torch.tensor([-0.7, 0.1, 0.5])
    found = {
        "means": (uniform(count, 3) - 0.5) * torch.tensor([3.0, 2.0, 2.0]) + torch.tensor([0, 0, 3.0]),
        "quats": torch.randn(count, 4, generator=g, dtype=torch.float64),
        "scales": size * torch.exp(uniform(count, 3) * 2 - 1),
        "opacities": 0.02 + 0.98 * uniform(count),
        "colors": uniform(count, 3),
        "viewmats": viewmats,
        "Ks": torch.tensor([[[30.0, 0, 19], [0, 34, 13], [0, 0, 1]], [[36.0, 0, 22], [0, 31, 10], [0, 0, 1]]]),
    }
    return {name: value.to(dtype) for name, value in found.items()} | {"width": 40, "height": 24}


def textbook(means, quats, scales, opacities, colors, viewmats, Ks, width, height, background, mode) -> tuple:
    """One splat after another over the whole picture, straight from the definitions; differentiable."""
    frames = []
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for viewmat, K in zip(viewmats, Ks, strict=True):
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        turn, shift = viewmat[:3, :3], viewmat[:3, 3]
        pixels = torch.stack((columns + 0.5, rows + 0.5), -1).double()
        rays = torch.stack(((pixels[..., 0] - cx) / fx, (pixels[..., 1] - cy) / fy, torch.ones(height, width)), -1)
        rays = torch.nn.functional.normalize(rays @ turn, dim=-1)  # world
        eye = -turn.T @ shift
        left = torch.ones(height, width, dtype=torch.float64)
        open_ = torch.ones(height, width, dtype=torch.bool)
        rgb, depth, alpha = torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(height, width)
        centres = means @ turn.T + shift
        for i in centres[:, 2].argsort():
            x, y, z = centres[i]
            w, a, b, c = quats[i] / quats[i].norm()
            axes = torch.stack((
                1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b),
                2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a),
                2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b),
            )).view(3, 3)  # fmt: skip
            if mode == "ewa":
                limit = torch.tensor([width, height]).double() / 2 * 0.3
                u = (x / z).clamp(-(cx + limit[0]) / fx, (width - cx + limit[0]) / fx)
                v = (y / z).clamp(-(cy + limit[1]) / fy, (height - cy + limit[1]) / fy)
                zero = torch.zeros_like(x)
                J = torch.stack((fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z)).view(2, 3)
                half = J @ turn @ axes @ scales[i].diag()
                middle, spread = (
                    torch.stack((fx * x / z + cx, fy * y / z + cy)),
                    half @ half.T + 0.3 * torch.eye(2, dtype=torch.float64),
                )
                away = pixels - middle
                power = -0.5 * (away * (away @ spread.inverse())).sum(-1)
                thinned = opacities[i]
            else:
                lam = 0.1**2 * 3 - 3
                steps = math.sqrt(3 + lam) * axes * scales[i]
                points = torch.cat((means[i][None], means[i] + steps.T, means[i] - steps.T)) @ turn.T + shift
                spots = points[:, :2] / points[:, 2:] * torch.stack((fx, fy)) + torch.stack((cx, cy))
                margin = 0.1 * torch.tensor([width, height])
                inside = (spots >= -margin) & (spots < 1.1 * torch.tensor([width, height]))
                if not (inside & (points[:, 2:] > 0)).all():
                    continue
                mean_weights = torch.tensor([lam / (3 + lam)] + [0.5 / (3 + lam)] * 6).double()
                weights = mean_weights.clone()
                weights[0] += 1 - 0.1**2 + 2
                middle = mean_weights @ spots
                sharp = (spots - middle).T @ (weights[:, None] * (spots - middle))
                spread = sharp + 0.3 * torch.eye(2, dtype=torch.float64)
                thinned = opacities[i] * (sharp.det() / spread.det()).clamp(min=0).sqrt()
                inverse = (axes / scales[i]).T
                ray, origin = rays @ inverse.T, inverse @ (eye - means[i])
                cross = torch.linalg.cross(ray / ray.norm(dim=-1, keepdim=True), origin.expand_as(ray))
                power = -0.5 * cross.square().sum(-1)
            if thinned < 1 / 255 or not 0.1 <= z <= 500:
                continue
            reach = (2 * (thinned * 255).log()).sqrt().clamp(max=3.33)
            radius = (reach * spread.diagonal().sqrt()).ceil()
            low, high = ((middle - radius) / 16).floor() * 16, ((middle + radius) / 16).ceil() * 16
            listed = ((pixels > low) & (pixels < high)).all(-1)
            opacity = (opacities[i] * power.exp()).clamp(max=0.999)
            opacity = torch.where(listed & (opacity >= 1 / 255) & open_, opacity, 0)
            open_ = open_ & (left * (1 - opacity) > 1e-4)
            opacity = torch.where(open_, opacity, 0)
            rgb = rgb + (left * opacity)[..., None] * colors[i]
            depth = depth + left * opacity * (z if mode == "ewa" else z.detach())
            alpha = alpha + left * opacity
            left = left * (1 - opacity)
        frames.append((rgb + left[..., None] * background, alpha, depth / alpha.clamp(min=1e-10)))
    return tuple(torch.stack(part) for part in zip(*frames, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("count", "size"), [(40, 0.08), (12, 0.6), (100, 0.3)], ids=["small", "huge", "saturated"])
def test_pictures_and_gradients_equal_the_definition(mode, count, size):
    results = []
    background = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)
    for draw in (rasterize, textbook):
        arguments = scene(count, seed=count, size=size)
        leaves = [arguments[name].requires_grad_() for name in NAMES]
        outputs = draw(**arguments, background=background, mode=mode)
        g = torch.Generator().manual_seed(9)
        total = sum((o * torch.randn(o.shape, generator=g, dtype=o.dtype)).sum() for o in outputs)
        results.append((outputs, torch.autograd.grad(total, leaves)))
    for found, truth in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)
    for name, found, truth in zip(NAMES, results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-7 * truth.abs().max().item(), msg=name)
    if count == 100:
        assert results[0][0][1].max() > 0.999


def single(mode: str, mean=(0.0, 0.0, 4.0), sigma=0.3, opacity=0.8, focal=50.0, side=33, **options) -> tuple:
    """One round splat before an upright camera whose axis meets the middle pixel's centre."""
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    return rasterize(
        torch.tensor([mean]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), sigma), torch.tensor([opacity]),
        torch.tensor([[0.1, 0.5, 0.9]]), torch.eye(4)[None], K[None], width=side, height=side, mode=mode, **options,
    )  # fmt: skip


def test_a_round_splat_falls_off_with_the_distance_of_the_ray():
    _, alpha, _ = single("ut_eval3d")
    slope = (torch.arange(33) - 16) / 50
    distance = 4 * slope / (1 + slope.square()).sqrt()
    expected = 0.8 * torch.exp(-0.5 * (distance / 0.3).square())
    torch.testing.assert_close(alpha[0, 16], torch.where(expected >= 1 / 255, expected, 0), rtol=1e-5, atol=1e-7)


def test_a_round_splat_projects_to_a_blurred_gaussian():
    rgb, alpha, depth = single("ewa")
    variance = (50 * 0.3 / 4) ** 2 + 0.3
    expected = 0.8 * torch.exp(-0.5 * (torch.arange(33) - 16).square() / variance)
    expected = torch.where(expected >= 1 / 255, expected, 0)
    torch.testing.assert_close(alpha[0, 16], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(rgb[0, 16], expected[:, None] * torch.tensor([0.1, 0.5, 0.9]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(depth[0], torch.where(alpha[0] > 0, 4.0, 0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_no_single_splat_hides_all_behind_it(mode):
    _, alpha, _ = single(mode, opacity=1.0)
    assert alpha.max().item() == pytest.approx(0.999, abs=1e-6)  # as gsplat, so that gradients pass through


@pytest.mark.parametrize("mode", MODES)
def test_alpha_is_one_minus_the_product_of_transmittances(mode):
    arguments = scene(9, seed=1, size=0.3)
    _, alpha, _ = rasterize(**arguments, mode=mode)
    left = torch.ones_like(alpha)
    for i in range(9):
        left *= 1 - rasterize(**arguments | {name: arguments[name][i : i + 1] for name in NAMES}, mode=mode)[1]
    torch.testing.assert_close(alpha, 1 - left, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_input_does_not_matter(mode):
    arguments = scene(50, seed=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    shuffled = rasterize(**arguments | {name: arguments[name][order] for name in NAMES}, mode=mode)
    for found, expected in zip(shuffled, rasterize(**arguments, mode=mode), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_both_modes_agree_on_a_distant_splat():
    views = [single(mode, (0.2, 0.1, 100.0), sigma=0.5, focal=2000.0, side=64) for mode in MODES]
    both = (views[0][1] > 0.01) & (views[1][1] > 0.01)
    assert both.sum() > 500
    torch.testing.assert_close(views[0][1][both], views[1][1][both], rtol=0, atol=2e-3)  # 0.3 px^2 of blur on 100 px^2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_gradients_equal_finite_differences(mode):
    arguments = scene(4, seed=3, size=0.4) | {"width": 17, "height": 18}
    leaves = tuple(arguments[name].requires_grad_() for name in NAMES)

    def mixed(*tensors):
        rgb, alpha, depth = rasterize(**arguments | dict(zip(NAMES, tensors, strict=True)), mode=mode)
        used = [rgb, alpha, depth] if mode == "ewa" else [rgb, alpha]  # ut_eval3d: see the next test
        return sum((o * torch.linspace(-1, 1, o.numel()).view(o.shape)).sum() for o in used)

    assert torch.autograd.gradcheck(mixed, leaves, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_the_unscented_mode_moves_no_splat_by_its_depth():
    arguments = scene(1, seed=0, size=0.5)
    means = arguments["means"].requires_grad_()
    gradients = {}
    for mode in MODES:
        depth = rasterize(**arguments, mode=mode)[2]
        gradients[mode] = torch.autograd.grad(depth.sum(), means)[0]
    assert gradients["ut_eval3d"].abs().max() < 1e-9
    assert gradients["ewa"][0, 2] > 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limits", [{"CHUNK": 5}, {"SLAB": 7, "CHUNK": 3}, {"BATCH": {"cpu": 1}}])
def test_pictures_do_not_depend_on_how_the_work_is_split(monkeypatch, mode, limits):
    arguments = scene(100, seed=4, size=0.3)
    leaves = [arguments[name].requires_grad_() for name in NAMES]

    def run():
        outputs = rasterize(**arguments, mode=mode)
        return *outputs, *torch.autograd.grad(sum(o.square().sum() for o in outputs), leaves)

    whole = run()
    for name, value in limits.items():
        monkeypatch.setattr(compositing, name, value)
    for found, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_blocks_of_every_side_draw_one_picture(mode):
    """The boxes that choose the blocks never cut a splat: whole tiles give the same."""
    arguments = scene(60, seed=5, size=0.3) | {"viewmats": torch.eye(4, dtype=torch.float64)[None]}
    arguments["Ks"] = arguments["Ks"][:1]
    options = {name: arguments[name] for name in ("width", "height")} | {"near": 0.1, "far": 500.0, "mode": mode}
    geometry = [arguments[name] for name in NAMES[:4]]
    seen = project(*geometry, arguments["viewmats"][0], arguments["Ks"][0], **options)
    pictures = []
    for boxes, side in ((seen.boxes, 4), (seen.boxes, 8), (seen.tiles * 16, 16)):
        blocks = compositing.cover(40, 24, side)
        boxes = boxes.minimum(torch.tensor([40, 24, 40, 24]))
        sums = compositing.Composite.apply(seen.rows, arguments["colors"][seen.index], boxes, blocks)
        pictures.append(blocks.picture(sums, 40, 24))
    torch.testing.assert_close(pictures[0], pictures[2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pictures[1], pictures[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_each_camera_may_have_its_own_colors(mode):
    arguments = scene(30, seed=6)
    twice = torch.stack((arguments["colors"], 1 - arguments["colors"]))
    rgb, alpha, _ = rasterize(**arguments | {"colors": twice}, mode=mode)
    plain, _, _ = rasterize(**arguments, mode=mode)
    torch.testing.assert_close(rgb[0], plain[0])
    torch.testing.assert_close(rgb[1], alpha[1, ..., None] - plain[1])


@pytest.mark.parametrize("mode", MODES)
def test_without_depth_the_rest_is_the_same(mode):
    given = scene(12, seed=5)
    found = {}
    for depth in (True, False):
        leaves = {name: given[name].clone().requires_grad_() for name in NAMES}
        rgb, alpha, *z = rasterize(**given | leaves, mode=mode, depth=depth)
        (rgb.square().sum() + alpha.sum()).backward()
        assert len(z) == depth
        found[depth] = [rgb, alpha, *(leaf.grad for leaf in leaves.values())]
    torch.testing.assert_close(found[True], found[False])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_view_leaves_the_background(mode):
    background = torch.tensor([0.1, 0.5, 0.9])
    empty = {name: value[:0] for name, value in scene(1, seed=0, dtype=torch.float32).items() if name in NAMES}
    behind = {"means": torch.tensor([[0.0, 0, -3]])}
    for change in (empty, behind):
        arguments = scene(1, seed=0, dtype=torch.float32) | change
        rgb, alpha, depth = rasterize(**arguments, background=background, mode=mode)
        assert torch.equal(rgb, background.expand(2, 24, 40, 3))
        assert not alpha.any()
        assert not depth.any()


@pytest.mark.parametrize("mode", MODES)
def test_splats_outside_near_and_far_are_not_drawn(mode):
    assert single(mode, near=4.0, far=4.0001)[1].any()
    assert not single(mode, near=4.001)[1].any()
    assert not single(mode, far=3.999)[1].any()


@pytest.mark.parametrize("mode", MODES)
def test_degenerate_splats_are_left_out_without_a_trace(mode):
    arguments = scene(20, seed=7, dtype=torch.float32)
    broken = {name: arguments[name].clone() for name in NAMES}
    broken["means"][3] = float("nan")
    broken["scales"][5] = 0 if mode == "ut_eval3d" else float("inf")
    broken["opacities"][8] = float("nan")
    kept = [i for i in range(20) if i not in (3, 5, 8)]
    leaves = [value.requires_grad_() for value in broken.values()]
    found = rasterize(**arguments | broken, mode=mode)
    expected = rasterize(**arguments | {name: arguments[name][kept] for name in NAMES}, mode=mode)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    for gradient in torch.autograd.grad(sum(o.sum() for o in found), leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "3dgut"}, "unknown mode '3dgut'; use one of ut_eval3d, ewa"),
        ({"quats": torch.full((3, 4), float("nan"))}, "3 of 3 quats hold NaN"),
        ({"quats": torch.zeros(3, 4)}, "or are zero"),
        ({"scales": torch.ones(3)}, r"scales must be \[3, 3\], got \[3\]"),
        ({"colors": torch.ones(4, 3, 3)}, r"colors must be \[2, 3, 3\], got \[4, 3, 3\]"),
        ({"viewmats": torch.ones(0, 4, 4), "Ks": torch.ones(0, 3, 3)}, "no cameras"),
        ({"Ks": torch.ones(1, 3, 3)}, r"Ks must be \[2, 3, 3\]"),
        ({"background": torch.ones(4)}, r"background must be \[3\]"),
        ({"means": torch.ones(3, 3, dtype=torch.bfloat16)}, "cast all Gaussian tensors to float32"),
        ({"near": 0.0}, "0 < near < far"),
        ({"width": 0}, "both must be positive"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        rasterize(**scene(3, seed=0, dtype=torch.float32) | change)


def test_gsplat_asked_for_by_name_never_falls_back():
    with pytest.raises(KernelUnavailable, match="needs CUDA tensors"):
        rasterize(**scene(3, seed=0, dtype=torch.float32), backend="gsplat")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_the_reference_draws_the_same_on_a_gpu(mode):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    arguments = scene(500, seed=8, size=0.2)
    on_gpu = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
    expected, found = (rasterize(**a, mode=mode, backend="torch") for a in (arguments, on_gpu))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-9)
