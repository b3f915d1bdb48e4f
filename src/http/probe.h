/*
 * probe.h - GET /live, /ready and /health for load balancers and service managers.
 *
 * Any HTTP thread. The answers are made from the process's gauges alone.
 */
#ifndef EG_HTTP_PROBE_H
#define EG_HTTP_PROBE_H

struct mg_connection;

/* A request hook for a listener; arg is unused. Other paths get a 404 problem. */
int eg_probe_request(void *arg, struct mg_connection *conn);

#endif
