#!/usr/bin/env python3
"""Not Grafana: a placeholder that checks the files which Grafana would be provisioned with, asks each data source that they name
as Grafana would, and answers /api/health if all is right."""
import http.server, json, os, pathlib, re, ssl, sys, time, urllib.error, urllib.request, yaml

problems = []


def expand(path, value):
    """What Grafana makes of $NAME, ${NAME}, $__env{NAME} and $__file{PATH}: the environment, or a file."""
    def one(match):
        file, name = match["file"], match["env"] or match["braced"] or match["plain"]
        if file:
            try:
                return pathlib.Path(file).read_text()
            except OSError as e:
                problems.append(f"{path}: {match[0]}: {e}")
        elif not os.environ.get(name):
            problems.append(f"{path}: {match[0]} is not in the environment")
        return os.environ.get(name or "", "")
    return re.sub(r"\$__file\{(?P<file>[^}]+)\}|\$__env\{(?P<env>\w+)\}|\$\{(?P<braced>\w+)\}|\$(?P<plain>[A-Za-z]\w*)", one, value)


def ask(source):
    """Sends the question that a data source's own test sends."""
    data, secure = source.get("jsonData", {}), source["secureJsonData"]
    if source["type"] == "prometheus":
        request, context = urllib.request.Request(source["url"] + "/api/v1/query?query=1"), None
    elif source["type"] == "grafana-clickhouse-datasource" and data.get("protocol") == "http":
        scheme = "https" if data.get("secure") else "http"
        request = urllib.request.Request(f"{scheme}://{data['host']}:{data['port']}/?database={data['defaultDatabase']}", b"SELECT 1",
            {"X-ClickHouse-User": data["username"], "X-ClickHouse-Key": secure["password"]})
        context = ssl.create_default_context(cadata=secure["tlsCACert"] if data.get("tlsAuthWithCACert") else None)
    else:
        raise ValueError(f"no question known for type {source['type']!r}")
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        answer.read()


sources = {}
provisioning = pathlib.Path("/etc/grafana/provisioning")
for path in sorted(provisioning.glob("datasources/*.yml")):
    for source in yaml.safe_load(path.read_text())["datasources"]:
        source["secureJsonData"] = {k: expand(path, v) for k, v in source.get("secureJsonData", {}).items()}
        sources[source["uid"]] = source
panels = 0
for path in sorted(provisioning.glob("dashboards/*.yml")):
    for provider in yaml.safe_load(path.read_text())["providers"]:
        found = sorted(pathlib.Path(provider["options"]["path"]).glob("*.json"))
        if not found:
            problems.append(f"{path}: no dashboards in {provider['options']['path']}")
        for file in found:
            dashboard = json.loads(file.read_text())
            for panel in dashboard["panels"]:
                for target in panel.get("targets", []):
                    panels += 1
                    uid = (target.get("datasource") or panel.get("datasource") or {}).get("uid")
                    if uid not in sources:
                        problems.append(f"{file}: panel {panel.get('title')!r} wants data source {uid!r}, there are {sorted(sources)}")
if not os.environ.get("GF_SECURITY_ADMIN_PASSWORD"):
    problems.append("GF_SECURITY_ADMIN_PASSWORD is empty")
if problems:
    sys.exit("\n".join(problems))

deadline = time.monotonic() + 60  # a server may start later than this
for source in sources.values():
    while True:
        try:
            ask(source)
            break
        except Exception as e:
            said = e.read().decode(errors="replace") if isinstance(e, urllib.error.HTTPError) else ""
            if time.monotonic() > deadline:
                sys.exit(f"data source {source['name']}: {e} {said}")
            time.sleep(1)
print(f"placeholder for Grafana: {len(sources)} data sources answer, {panels} queries of panels: provisioned files are right", flush=True)


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b"placeholder\n")

    def log_message(self, *_):
        pass


http.server.HTTPServer(("", 3000), Health).serve_forever()
