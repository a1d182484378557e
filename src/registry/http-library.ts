/** What the transport needs of undici, behind a module that is imported when first needed. */
export { Agent, EnvHttpProxyAgent, request } from "undici";
