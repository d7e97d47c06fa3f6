"""uets_jax: the Ultra-Efficient Training System."""
