"""Counts visits in an SQLite file: POST / on 127.0.0.1:9000 answers with the number, which outlives the container."""
import http.server
import sqlite3
import sys
import urllib.request

PORT = 9000


def count(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE IF NOT EXISTS visits (at TEXT DEFAULT CURRENT_TIMESTAMP)")
        database.execute("INSERT INTO visits DEFAULT VALUES")
        return database.execute("SELECT count(*) FROM visits").fetchone()[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer("ok\n")

    def do_POST(self):
        self.answer(f"{count(sys.argv[1])}\n")


if sys.argv[1] == "--check":
    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=2)
else:
    print(f"counting in {sys.argv[1]}")
    try:
        http.server.HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
    except KeyboardInterrupt:
        print("stopped")
