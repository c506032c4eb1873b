"""Huge images as small files of 2-D Gaussians."""
