/* Read before each C and assembly file of a build for ARMv6, which has no NEON: see README.md beside this file.
 *
 * ring's assembly for 32-bit ARM comes with NEON routines, which ring enters where the processor has it. Here they are
 * left out. The edge-agent's feature `without-neon` makes ring find no NEON anywhere, so that nothing enters what
 * replaces them below: an undefined instruction, once for the whole program.
 *
 * With a routine of which this file does not know, ring's next version fails to link, or fails the check of the
 * program's instructions. */
#if defined(__ASSEMBLER__) && defined(__arm__) && __has_include(<ring-core/asm_base.h>)

/* It gives the names that ring's symbols have in this version, and can be read once only. */
#include <ring-core/asm_base.h>

.pushsection .text.without_neon, "axG", %progbits, holdfast_without_neon, comdat
.code 32
.macro holdfast_without_neon name
.globl \name
.hidden \name
.type \name, %function
\name:
.endm
holdfast_without_neon ChaCha20_ctr32_neon
holdfast_without_neon bn_mul8x_mont_neon
holdfast_without_neon bsaes_ctr32_encrypt_blocks
holdfast_without_neon gcm_ghash_neon
holdfast_without_neon gcm_gmult_neon
holdfast_without_neon gcm_init_neon
holdfast_without_neon openssl_poly1305_neon2_addmulmod
holdfast_without_neon openssl_poly1305_neon2_blocks
holdfast_without_neon sha256_block_data_order_neon
holdfast_without_neon sha512_block_data_order_neon
holdfast_without_neon vpaes_ctr32_encrypt_blocks
holdfast_without_neon vpaes_encrypt_key_to_bsaes
holdfast_without_neon vpaes_set_encrypt_key
holdfast_without_neon x25519_NEON
.inst 0xe7f000f0
.popsection

/* Files with NEON beside something else ask this before they come to it. */
#undef __ARM_MAX_ARCH__
#define __ARM_MAX_ARCH__ 6

/* Files with nothing else do not: what they define gets names that nothing refers to, and is not linked. */
#undef openssl_poly1305_neon2_addmulmod
#define openssl_poly1305_neon2_addmulmod without_openssl_poly1305_neon2_addmulmod
#undef openssl_poly1305_neon2_blocks
#define openssl_poly1305_neon2_blocks without_openssl_poly1305_neon2_blocks
#undef vpaes_ctr32_encrypt_blocks
#define vpaes_ctr32_encrypt_blocks without_vpaes_ctr32_encrypt_blocks
#undef vpaes_encrypt_key_to_bsaes
#define vpaes_encrypt_key_to_bsaes without_vpaes_encrypt_key_to_bsaes
#undef vpaes_set_encrypt_key
#define vpaes_set_encrypt_key without_vpaes_set_encrypt_key
#undef x25519_NEON
#define x25519_NEON without_x25519_NEON

#endif
