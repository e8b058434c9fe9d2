"""Batch normalisation of covariance matrices in the Bures-Wasserstein geometry, on digits.

Every matrix is the covariance of 16 image features over 20 images of one digit. Half of the images
were "recorded" by a device with another gain in every feature. Normalising the batch of each device
moves both to one centre with one spread, so that the second's digits resemble the first's.
"""

import numpy as np
from sklearn.datasets import load_digits

import linalgk as lk


def hermitian(x):
    return 0.5 * (x + np.swapaxes(x, -1, -2))


def transport(s, p, back=False):
    """A tangent vector from P to the identity, in closed form because the two commute."""
    w, u = np.linalg.eigh(p)
    factor = np.sqrt(2 / (w[:, None] + w))
    return hermitian(u @ ((u.T @ s @ u) * (1 / factor if back else factor)) @ u.T)


class BatchNorm:
    """Centre and spread of batches of positive definite matrices, with running values.

    ``bias`` G is the new centre, ``spread`` the new standard deviation. ``metric`` M is that of the
    generalized geometry: the plain one of ``M^(-1/2) A M^(-1/2)``, in which the results are.
    """

    def __init__(self, n, momentum=0.1, eps=1e-5, spread=1.0, bias=None, metric=None):
        eye = np.eye(n)
        self.momentum, self.eps, self.spread = momentum, eps, spread
        self.bias = eye if bias is None else bias
        self.enter = eye if metric is None else lk.invsqrtm(metric)
        self.running_mean, self.running_variance = eye, 1.0

    def __call__(self, covs, training=True):
        x = hermitian(self.enter @ covs @ self.enter)
        mean, variance, eye = self.running_mean, self.running_variance, np.eye(x.shape[-1])
        if training:
            mean = lk.bures_barycenter(x)
            variance = float(lk.bures_distance(x, mean, squared=True).mean())
            self.remember(mean, variance)
        # Log_B(P) = (T - I) B + B (T - I) with T B T = P
        tangent = 2 * hermitian((lk.bures_map(mean, x) - eye) @ mean)
        tangent = transport(tangent, mean) * self.spread / np.sqrt(variance + self.eps)
        tangent = transport(tangent, self.bias, back=True)
        # Exp_G(S) = (I + L) G (I + L) with L G + G L = S
        move = eye + lk.solve_lyapunov(self.bias, tangent, assume_a="pos")
        self.injective = bool((np.linalg.eigvalsh(move) > 0).all())
        return hermitian(move @ self.bias @ move)

    def remember(self, mean, variance):
        """A step along the geodesic from the running mean to the batch's."""
        move = lk.bures_map(self.running_mean, mean)
        move = (1 - self.momentum) * np.eye(len(mean)) + self.momentum * move
        self.running_mean = hermitian(move @ self.running_mean @ move)
        self.running_variance += self.momentum * (variance - self.running_variance)


def covariances(images, labels, size=20):
    """Of groups of images of one digit, and which digit."""
    covs, digits = [], []
    for digit in range(10):
        own = images[labels == digit]
        for k in range(len(own) // size):
            covs.append(np.cov(own[k * size : (k + 1) * size].T))
            digits.append(digit)
    return np.stack(covs), np.array(digits)


def nearest(train, digits, test):
    """The digit with the nearest barycentre."""
    means = np.stack([lk.bures_barycenter(train[digits == d]) for d in range(10)])
    return lk.bures_distance(test[:, None], means).argmin(axis=1)


data = load_digits()
features = data.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 16
features = features + 0.01 * np.random.default_rng(0).standard_normal(features.shape)
gains = np.exp(np.random.default_rng(1).standard_normal(16))
half = len(features) // 2
first, digits = covariances(features[:half], data.target[:half])
second, truth = covariances(features[half:] * gains, data.target[half:])
devices = (first, second)


def centre_and_variance(covs):
    mean = lk.bures_barycenter(covs)
    away = float(lk.bures_distance(mean, np.eye(16)))
    return f"{away:.2f}, {float(lk.bures_distance(covs, mean, squared=True).mean()):.4f}"


def known(pair):
    return f"{np.mean(nearest(pair[0], digits, pair[1]) == truth):.0%}"


layers = [BatchNorm(16), BatchNorm(16)]
plain = [layer(covs) for layer, covs in zip(layers, devices, strict=True)]
general = [BatchNorm(16, metric=lk.bures_barycenter(covs))(covs) for covs in devices]
print(f"condition numbers up to {np.linalg.cond(np.concatenate(devices)).max():.0e}")
print("distance of the mean from I, variance")
for name, before, after in zip(("first", "second"), devices, plain, strict=True):
    print(f"  {name + ' device':<15}{centre_and_variance(before)} -> {centre_and_variance(after)}")
print("digits of the second device that the first's means know")
print(f"  as recorded {known(devices)}, normalised {known(plain)}, ", end="")
print(f"in the geometry of its own mean {known(general)}")
