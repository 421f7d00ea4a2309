# A training worker: the server's image with another command, so that both are always of one version.
# docker build -f docker/server.Dockerfile -t loam-server . && docker build -f docker/worker.Dockerfile --build-arg SERVER=loam-server .
ARG SERVER=loam-server
FROM ${SERVER}
HEALTHCHECK NONE
CMD ["loam", "worker"]
