"""Foreground masking: what the surface stretched over depth edges hides from a new camera (teacher.md 5.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry.geometry import pixel_rays, transform

TOLERANCE = 0.02  # how far behind the boundary mesh a point may lie before it counts as hidden
KNOWN = 0.5  # share of a vertex's pixels that must have depth; the reference asks for none
REDUCTION = 4  # the mesh has one vertex for 4 x 4 pixels
NEAR = 1e-6  # triangles are cut at this depth only to bound where they appear
EPSILON = 1e-8  # smallest determinant and smallest distance of a hit
PAIRS = 1 << 22  # triangle-pixel pairs tested at once, about 150 bytes each


@dataclass(frozen=True, eq=False, kw_only=True)
class BoundaryMesh:
    """Triangles across the depth edges of one picture."""

    vertices: Tensor  # [P, 3] world
    faces: Tensor  # [T, 3] rows of vertices


def hidden(depth: Tensor, meshes: Sequence[BoundaryMesh], w2c: Tensor, K: Tensor) -> Tensor:
    """Where what was drawn, at a depth [I, H, W], lies behind its picture's mesh: bool [I, H, W]."""
    front = mesh_depth(meshes, w2c, K, *depth.shape[1:])
    return (front > 0) & (front + TOLERANCE < depth)


def boundary_mesh(points: Tensor, boundary: Tensor) -> BoundaryMesh:
    """Join points [H, W, 3], reduced 4 x 4, into triangles wherever a cell touches ``boundary`` [H, W] (bool).

    Pixels without depth have their point at the origin (see ``unproject``). A vertex that is mostly made of them is no
    corner: a surface from an object's edge to where the camera stood would hide all that is beside the object.
    """
    size = [side // REDUCTION for side in boundary.shape]
    grid = F.interpolate(points.permute(2, 0, 1)[None], size=size, mode="bilinear")[0].flatten(1).T  # [h * w, 3]
    edge = F.interpolate(boundary[None, None].float(), size=size, mode="nearest")[0, 0] > 0
    index = torch.arange(len(grid), device=grid.device).view(size)
    top_left, top_right, bottom_left, bottom_right = _corners(index)
    cells = torch.stack(_corners(edge)).any(0)
    upper = torch.stack([top_left, top_right, bottom_left], -1)[cells]
    lower = torch.stack([top_right, bottom_right, bottom_left], -1)[cells]
    faces = torch.cat([upper, lower])
    known = F.interpolate((points != 0).any(-1)[None, None].float(), size=size, mode="bilinear").flatten()
    used, faces = faces[(known > KNOWN)[faces].all(1)].unique(return_inverse=True)
    return BoundaryMesh(vertices=grid[used], faces=faces)


def _corners(grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four corners of each 2 x 2 cell of a grid [h, w]."""
    return grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]


def mesh_depth(meshes: Sequence[BoundaryMesh], w2c: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """Depth [I, H, W] of the nearest triangle each pixel's ray meets, seen from either side; 0 where it meets none."""
    triangles, owner = [], []
    for _, alike in groupby(range(len(meshes)), lambda i: id(meshes[i])):  # one mesh is often seen by many cameras
        cameras = list(alike)
        mesh, pictures = meshes[cameras[0]], torch.tensor(cameras, device=K.device)
        vertices = torch.stack(transform(w2c[cameras[0] : cameras[-1] + 1], mesh.vertices[None].unbind(-1)), -1)
        triangles.append(vertices[:, mesh.faces].flatten(0, 1))
        owner.append(pictures.repeat_interleave(len(mesh.faces)))
    return rasterize_triangles(torch.cat(triangles), torch.cat(owner), K, height, width)


def rasterize_triangles(triangles: Tensor, owner: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """Nearest depth [I, H, W] of triangles [T, 3, 3] in camera space of picture ``owner`` [T]; 0 where there is none.

    Moeller-Trumbore for rays D = inv(K) [u, v, 1] from the origin, written as products with D that a triangle's pixels
    share: determinant D.(e2 x e1), barycentric D.(v0 x e2) and D.(e1 x v0), depth e2.(e1 x v0) / determinant.
    """
    lengths = pixel_rays(K, height, width).norm(dim=-1).flatten()
    v0 = triangles[:, 0]
    e1, e2 = triangles[:, 1] - v0, triangles[:, 2] - v0
    q = e1.cross(v0, dim=-1)
    normals = torch.stack([e2.cross(e1, dim=-1), v0.cross(e2, dim=-1), q], 1)  # [T, 3 products, 3]
    products = (normals[..., None] * torch.linalg.inv(K)[owner, None]).sum(2)  # [T, 3 products, 3] over [u, v, 1]
    volume = (e2 * q).sum(-1)
    nearest = torch.full((len(K) * height * width,), torch.inf, device=K.device)
    top, rows = row_bounds(triangles, K[owner], height)
    for face, row in pairs(rows):
        v = top[face] + row
        along = products[face, :, 0]  # a product is along * u + rest on this row
        rest = products[face, :, 1] * v[:, None] + products[face, :, 2]
        left, columns = column_bounds(along, rest, volume[face], width)
        base, volume_here = (owner[face] * height + v) * width, volume[face]
        for span, column in pairs(columns):
            u = left[span] + column
            determinant, a, b = (along[span] * u[:, None] + rest[span]).unbind(-1)
            a, b, depth = a / determinant, b / determinant, volume_here[span] / determinant
            index = base[span] + u
            hit = (a >= 0) & (b >= 0) & (a + b <= 1)
            hit &= (determinant.abs() >= EPSILON * lengths[index]) & (depth * lengths[index] > EPSILON)
            nearest.scatter_reduce_(0, index[hit], depth[hit], "amin")
    return torch.where(nearest.isinf(), 0, nearest).view(len(K), height, width)


def row_bounds(triangles: Tensor, K: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """First row and number of rows [T] that the part of triangles [T, 3, 3] before the camera may cover.

    An edge that crosses the camera's plane adds the point where it does, NEAR in front of it.
    """
    ends = triangles.roll(-1, 1)
    z, z_end = triangles[..., 2], ends[..., 2]
    crosses = (z > NEAR) != (z_end > NEAR)
    share = torch.where(crosses, (NEAR - z) / torch.where(crosses, z_end - z, 1), 0)[..., None]
    points = torch.cat([triangles, torch.lerp(triangles, ends, share)], 1)
    counts = torch.cat([z > NEAR, crosses], 1)
    v = (points * K[:, None, 1]).sum(-1) / torch.where(counts, points[..., 2].clamp(min=NEAR), 1)
    top = torch.where(counts, v, torch.inf).amin(1).floor().clamp(0, height)
    bottom = torch.where(counts, v, -torch.inf).amax(1).ceil().clamp(-1, height - 1)
    return top.long(), (bottom - top + 1).clamp(min=0).long()


def column_bounds(along: Tensor, rest: Tensor, volume: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """First column and number of columns [M] of a row that a triangle covers, at most one too many on either side.

    Both barycentric numbers and what they leave of the determinant have the volume's sign there, and each is
    ``along * u + rest``, from [M, 3]; so each bounds u from one side.
    """
    sign = volume.sign()[:, None]
    slope, start = (sign * torch.cat([t[:, 1:], t[:, :1] - t[:, 1:2] - t[:, 2:]], 1) for t in (along, rest))
    zero = -start / slope
    low = torch.where(slope > 0, zero, -torch.inf).amax(1).floor().clamp(0, width)
    high = torch.where(slope < 0, zero, torch.inf).amin(1).ceil().clamp(-1, width - 1)
    return low.long(), torch.where(volume == 0, 0, (high - low + 1).clamp(min=0)).long()


def pairs(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All (i, j) with j < counts[i] of counts [M], in order, PAIRS or so at a time."""
    ends = counts.cumsum(0)
    totals = ends.cpu()
    first = done = 0
    while first < len(totals) and done < totals[-1]:
        last = max(int(torch.searchsorted(totals, done + PAIRS, right=True)), first + 1)
        upto = int(totals[last - 1])
        i = torch.arange(first, last, device=counts.device)
        i = i.repeat_interleave(counts[first:last], output_size=upto - done)
        yield i, torch.arange(done, upto, device=counts.device) - (ends - counts)[i]
        first, done = last, upto
