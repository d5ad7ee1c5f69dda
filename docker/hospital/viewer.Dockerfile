# OHIF, as published on npm, behind nginx. From the repository's root:
#   docker build -f docker/hospital/viewer.Dockerfile -t liverseg-viewer:3.13.2 docker/hospital
FROM node:22-bookworm-slim AS ohif
ARG OHIF=3.13.2
ARG SHA256=b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1
WORKDIR /ohif
RUN npm pack --ignore-scripts "@ohif/app@${OHIF}" \
 && echo "${SHA256}  ohif-app-${OHIF}.tgz" | sha256sum --check \
 && tar -xzf "ohif-app-${OHIF}.tgz" package/dist \
 && find package/dist -name '*.map' -delete \
 && chmod -R a+rX package/dist

FROM nginxinc/nginx-unprivileged:1.29.4-alpine
COPY --from=ohif /ohif/package/dist /usr/share/nginx/html
COPY nginx.conf /etc/nginx/nginx.conf
COPY app-config.js /usr/share/nginx/html/app-config.js
