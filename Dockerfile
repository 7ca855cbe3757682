# Ray's own image with what requirements.txt pins, and this code: what Kubernetes runs (deploy/kuberay).
#
#   docker build -t registry.example.com/sicot:0.1.0 .
#   docker build -t registry.example.com/sicot-gpu:0.1.0 --build-arg RAY=2.60.0-py311-gpu \
#     --build-arg TORCH=https://pypi.org/simple .
#
# The code is in the image, since neither a RayJob nor a RayService can upload a folder. What `ray job submit
# --working-dir .` brings comes before it, so that changed code needs no new image while it is being tried.
ARG RAY=2.60.0-py311
FROM rayproject/ray:${RAY}

# PyTorch for processors alone is a tenth of the size of the one that brings CUDA along
ARG TORCH=https://download.pytorch.org/whl/cpu

# the image's own user ray, by number, as Kubernetes wants to see it: nothing here needs more rights
USER 1000:100
WORKDIR /home/ray/sicot

# a layer of its own, gigabytes that stay the same while only code changes
COPY --chown=1000:100 requirements.txt ./
RUN pip install --no-cache-dir --extra-index-url "${TORCH}" -r requirements.txt

COPY --chown=1000:100 . ./
RUN pip install --no-cache-dir --no-deps .
