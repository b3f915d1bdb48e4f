/*
 * trust.h - whose certificates the commands believe when they talk TLS.
 *
 * The system's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name, as OpenSSL's own
 * programs have it. libcurl alone does not look at either. Any thread that does not set the
 * environment meanwhile.
 */
#ifndef EG_APP_TRUST_H
#define EG_APP_TRUST_H

#include <curl/curl.h>

/* Lets the transfer believe what the environment names; without it nothing is changed. */
void eg_trust(CURL *curl);

#endif
