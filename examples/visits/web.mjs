// Serves the page with the number of visits that the counter tells.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const page = readFileSync(new URL("index.html", import.meta.url), "utf8");

const server = createServer(async (_request, response) => {
  try {
    const answer = await fetch("http://127.0.0.1:9000/", { method: "POST" });
    response.setHeader("Content-Type", "text/html");
    response.end(page.replace("{visits}", (await answer.text()).trim()));
  } catch (error) {
    response.writeHead(502);
    response.end(`the counter does not answer: ${error.message}\n`);
  }
});
server.listen(8080, () => console.log("serving on 8080"));
// The first process of a container gets no default action for signals.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
